-- May this copy of a job end it? A job may stand in a topic twice, when a stage died between sending it on and committing.
-- KEYS[1]: job record. ARGV: owner, incarnation, life of the record in ms, 1 if this delivery may be a repeated one.
-- Gives 1 and marks the job as ending, or 0 if another copy has ended it, is ending it, or is being worked on.
local record = redis.call('HMGET', KEYS[1], 'state', 'owner', 'life')
local state = record[1]
local mine = state == 'leased' and record[2] == ARGV[1] and record[3] == ARGV[2]
-- An 'ending' copy whose process died comes again, and only it is suspect.
local again = state == 'ending' and ARGV[4] == '1'
if not state or state == 'abandoned' or mine or again then
  redis.call('HSET', KEYS[1], 'state', 'ending')
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return 1
end
return 0
