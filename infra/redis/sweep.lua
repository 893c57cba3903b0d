-- Gives back what is held for dead jobs. With holds.lua before it. ARGV: most to be released now.
-- Gives {how many were, 1 if the ledger is open, or 0}.
return {sweep(milliseconds(), tonumber(ARGV[1])), redis.call('GET', 'ledger:epoch') and 1 or 0}
