-- Holds, the one that ends first first. ARGV: how many to leave out, how many to give.
-- Gives {job, unix ms of its end, nano-dollars, tokens, counters (a line each), …}.
local found, place = redis.call('ZRANGE', 'holds', ARGV[1], ARGV[1] + ARGV[2] - 1, 'WITHSCORES'), 0
local told = {}
for i = 1, #found, 2 do
  local held = redis.call('HMGET', 'hold:' .. found[i], 'u', 't', 'b')
  told[place + 1], told[place + 2] = found[i], found[i + 1]
  told[place + 3], told[place + 4], told[place + 5] = held[1] or '0', held[2] or '0', held[3] or ''
  place = place + 5
end
return told
