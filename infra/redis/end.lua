-- May this copy of a job end it? A job may stand in a topic twice, when a stage died between sending it on and committing.
-- KEYS[1]: job record. ARGV: the copy (topic/partition@offset), owner, incarnation, life of the record in ms.
-- Gives 1 and marks the job as ending, or 0 if another copy has ended it, is ending it, or is being worked on.
local record = redis.call('HMGET', KEYS[1], 'state', 'copy', 'owner', 'life', 'until')
local state = record[1]
local mine = record[3] == ARGV[2] and record[4] == ARGV[3]
local time = redis.call('TIME')
local lapsed = tonumber(record[5] or 0) <= time[1] * 1000 + math.floor(time[2] / 1000)
-- The same copy asks again when the answer was lost, or when its process died: nobody else will end the job then.
local again = state == 'ending' and record[2] == ARGV[1]
local nobodys = not state or ((state == 'leased' or state == 'abandoned') and (mine or lapsed))
if nobodys or again then
  redis.call('HSET', KEYS[1], 'state', 'ending', 'copy', ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return 1
end
return 0
