-- Counts by minute, of all processes together. KEYS: a hash a minute. ARGV: how long they are kept, in ms; then for each key how
-- many fields are added to, and these: field, by how much. Gives what stands in each: field, value, field, value, …
local life, at, found = ARGV[1], 2, {}
for i, key in ipairs(KEYS) do
  local fields = tonumber(ARGV[at])
  at = at + 1
  for _ = 1, fields do
    redis.call('HINCRBY', key, ARGV[at], ARGV[at + 1])
    at = at + 2
  end
  if fields > 0 then
    redis.call('PEXPIRE', key, life)
  end
  found[i] = redis.call('HGETALL', key)
end
return found
