-- A job needs more than was held for it: as much again, at each of its counters or at none. With holds.lua before it.
-- KEYS: its counters. ARGV: job id, tokens, nano-dollars; of each counter: limit in nano-dollars or '', limit in tokens or ''.
-- Gives 1; 0 if it doesn't fit; -1 if nothing is held for the job any more.
local hold = 'hold:' .. ARGV[1]
if redis.call('EXISTS', hold) == 0 then
  return -1
end
local function fits()
  for i = 1, #KEYS do
    local counted = redis.call('HMGET', KEYS[i], 'u', 'hu', 't', 'ht')
    local usd, tokens = ARGV[2 * i + 2], ARGV[2 * i + 3]
    local money = tonumber(counted[1] or 0) + tonumber(counted[2] or 0) + tonumber(ARGV[3])
    local words = tonumber(counted[3] or 0) + tonumber(counted[4] or 0) + tonumber(ARGV[2])
    if (usd ~= '' and money > tonumber(usd)) or (tokens ~= '' and words > tonumber(tokens)) then
      return false
    end
  end
  return true
end
if not fits() and (sweep(milliseconds(), 100) == 0 or not fits()) then
  return 0
end
if redis.call('EXISTS', hold) == 0 then
  return -1
end
for counter in each(redis.call('HGET', hold, 'b')) do
  redis.call('HINCRBY', counter, 'hu', ARGV[3])
  redis.call('HINCRBY', counter, 'ht', ARGV[2])
end
redis.call('HINCRBY', hold, 'u', ARGV[3])
redis.call('HINCRBY', hold, 't', ARGV[2])
return 1
