-- The last record of each partition that is settled. ARGV: their numbers. Gives a number for each, -1 if none is.
local found = {}
for i, number in ipairs(ARGV) do
  found[i] = tonumber(redis.call('HGET', 'ledger:settled', number) or -1)
end
return found
