-- Corrects counters by differences, whatever is settled meanwhile.
-- KEYS: counters. ARGV: the state in which they were found (standing.lua); of each: nano-dollars, tokens, unix ms at which it may be
--   forgotten (0: never).
-- Gives 1; 0: the ledger was closed, opened or adjusted since then, perhaps by this very call, whose answer was lost.
local epoch = redis.call('GET', 'ledger:epoch')
if not epoch or ARGV[1] ~= epoch .. ':' .. (redis.call('GET', 'ledger:adjusted') or '0') then
  return 0
end
redis.call('INCR', 'ledger:adjusted')
for i = 1, #KEYS do
  redis.call('HINCRBY', KEYS[i], 'u', ARGV[3 * i - 1])
  redis.call('HINCRBY', KEYS[i], 't', ARGV[3 * i])
  if ARGV[3 * i + 1] ~= '0' then
    redis.call('PEXPIREAT', KEYS[i], ARGV[3 * i + 1])
  end
end
return 1
