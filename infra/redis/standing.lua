-- The ledger at one moment. KEYS: counters. ARGV: numbers of partitions.
-- Gives {names this state: it changes with each opening and each adjustment, or '' while the ledger is closed,
--   of each partition the last record that is settled, …, of each counter: spent nano-dollars, tokens, as text, …}.
local epoch = redis.call('GET', 'ledger:epoch')
local found = {epoch and epoch .. ':' .. (redis.call('GET', 'ledger:adjusted') or '0') or ''}
for i, number in ipairs(ARGV) do
  found[i + 1] = redis.call('HGET', 'ledger:settled', number) or '-1'
end
for i = 1, #KEYS do
  local counted = redis.call('HMGET', KEYS[i], 'u', 't')
  found[#found + 1] = counted[1] or '0'
  found[#found + 1] = counted[2] or '0'
end
return found
