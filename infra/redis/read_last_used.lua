-- KEYS[1]: hash of key id -> unix ms. ARGV: key ids. Gives a text for each, empty where nothing is known.
local found = {}
for i, id in ipairs(ARGV) do
  found[i] = redis.call('HGET', KEYS[1], id) or ''
end
return found
