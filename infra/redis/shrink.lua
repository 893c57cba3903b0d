-- A job waits again: of what is held for it only what it has cost so far stays, and its places are free. With holds.lua before it.
-- ARGV: job id, tokens, nano-dollars. Gives 1, or 0 if nothing is held for it.
local hold = 'hold:' .. ARGV[1]
local held = redis.call('HMGET', hold, 'u', 't', 'b', 'c')
for room in each(held[4]) do
  redis.call('ZREM', room, ARGV[1])
end
redis.call('HDEL', hold, 'c')
if not held[3] then
  return 0
end
for counter in each(held[3]) do
  redis.call('HINCRBY', counter, 'hu', text(tonumber(ARGV[3]) - tonumber(held[1])))
  redis.call('HINCRBY', counter, 'ht', text(tonumber(ARGV[2]) - tonumber(held[2])))
end
redis.call('HSET', hold, 'u', ARGV[3], 't', ARGV[2])
return 1
