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
hold_at(held[3], ARGV[3] - held[1], ARGV[2] - held[2])
redis.call('HSET', hold, 'u', ARGV[3], 't', ARGV[2])
return 1
