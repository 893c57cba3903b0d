-- Gives back what is held for dead jobs. With holds.lua before it.
-- ARGV: most to be released now; of each partition that is settled here: its number, unix ms up to which it is.
-- Gives {how many were, 1 if the ledger is open, or 0}.
for i = 2, #ARGV, 2 do
  if tonumber(ARGV[i + 1]) > tonumber(redis.call('HGET', 'ledger:alive', ARGV[i]) or 0) then
    redis.call('HSET', 'ledger:alive', ARGV[i], ARGV[i + 1])
  end
end
return {sweep(milliseconds(), tonumber(ARGV[1])), redis.call('GET', 'ledger:epoch') and 1 or 0}
