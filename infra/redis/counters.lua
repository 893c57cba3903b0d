-- What is spent and held at counters. KEYS: counters. Gives of each: spent nano-dollars, held, spent tokens, held, as text.
local found = {}
for i = 1, #KEYS do
  local counted = redis.call('HMGET', KEYS[i], 'u', 'hu', 't', 'ht')
  for j = 1, 4 do
    found[4 * i - 4 + j] = counted[j] or '0'
  end
end
return found
