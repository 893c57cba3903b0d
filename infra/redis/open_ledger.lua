-- The counters as they were counted anew, from the books: from now on the ledger is open.
-- KEYS: counters. ARGV: epoch (names this opening), number of partitions; of each: its number, the last record that is in the books;
--   of each counter: nano-dollars, tokens, unix ms at which it may be forgotten (0: never). What is held there already stays.
-- Gives 1, or 0 if it was opened before.
if not redis.call('SET', 'ledger:epoch', ARGV[1], 'NX') then
  return 0
end
local at = 3
for _ = 1, tonumber(ARGV[2]) do
  redis.call('HSET', 'ledger:settled', ARGV[at], ARGV[at + 1])
  redis.call('HSET', 'ledger:alive', ARGV[at], 0)
  at = at + 2
end
for i = 1, #KEYS do
  redis.call('HSET', KEYS[i], 'u', ARGV[at], 't', ARGV[at + 1])
  if ARGV[at + 2] ~= '0' then
    redis.call('PEXPIREAT', KEYS[i], ARGV[at + 2])
  end
  at = at + 3
end
return 1
