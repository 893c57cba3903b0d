-- Leases the first free number of a range, or keeps the one held. KEYS: one a number. ARGV: owner, lease in ms, number held (from 0, or -1).
-- Gives the number, or -1 if all are taken.
local held = tonumber(ARGV[3])
if held >= 0 then
  local owner = redis.call('GET', KEYS[held + 1])
  if not owner or owner == ARGV[1] then
    redis.call('SET', KEYS[held + 1], ARGV[1], 'PX', ARGV[2])
    return held
  end
  return -1
end
for i, key in ipairs(KEYS) do
  if redis.call('SET', key, ARGV[1], 'NX', 'PX', ARGV[2]) then
    return i - 1
  end
end
return -1
