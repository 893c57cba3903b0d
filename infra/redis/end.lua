-- May this copy of a job end it? A job may stand in a topic twice, when a stage died between sending it on and committing;
-- and its only copy is delivered again when a process died that had carried it on to the router in memory.
-- KEYS[1]: job record. ARGV: the copy (topic/partition@offset), owner, incarnation, life of the record in ms, may book calls (1 or 0).
-- Gives {'granted'} and marks the job as ending, {'again'} if this copy was granted it before, {'done'} if another copy
--   has ended it or is ending it, {'leased', ms left} while a router may be at work on it, {'answered'} if a router has to publish
--   what it kept, or {'called'} if a router has to tell of what a dead one had called, which who asks can't.
local record = redis.call('HMGET', KEYS[1], 'state', 'copy', 'owner', 'life', 'until', 'n')
local state = record[1]
local mine = record[3] == ARGV[2] and record[4] == ARGV[3]
local time = redis.call('TIME')
local left = tonumber(record[5] or 0) - (time[1] * 1000 + math.floor(time[2] / 1000))
-- The same copy asks again when the answer was lost, or when its process died: nobody else will end the job then.
local again = state == 'ending' and record[2] == ARGV[1]
local at_router = state == 'leased' or state == 'abandoned'
if at_router and left <= 0 and not mine and ARGV[5] == '0' and tonumber(record[6] or 0) > 0 then
  return {'called'}
end
if not state or again or (at_router and left <= 0) or ((at_router or state == 'answered') and mine) then
  redis.call('HSET', KEYS[1], 'state', 'ending', 'copy', ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return {again and 'again' or 'granted'}
end
if at_router then
  return {'leased', left}
end
return {state == 'answered' and state or 'done'}
