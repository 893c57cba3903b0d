-- Holds for a job that is on its way what was held before Redis lost it. With holds.lua before it.
-- KEYS: counters. ARGV: job id, tokens, nano-dollars, ms of the lease. Gives 1, or 0 if something is held for it.
local hold = 'hold:' .. ARGV[1]
if #KEYS == 0 or redis.call('EXISTS', hold) == 1 then
  return 0
end
for i = 1, #KEYS do
  redis.call('HINCRBY', KEYS[i], 'hu', ARGV[3])
  redis.call('HINCRBY', KEYS[i], 'ht', ARGV[2])
end
redis.call('HSET', hold, 'b', table.concat(KEYS, '\n'), 'u', ARGV[3], 't', ARGV[2])
redis.call('ZADD', 'holds', text(milliseconds() + tonumber(ARGV[4])), ARGV[1])
return 1
