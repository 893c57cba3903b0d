-- KEYS[1]: hash of key id -> unix ms. ARGV: key id, unix ms. Completions may come out of order: the latest stays.
local known = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
if tonumber(ARGV[2]) > known then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return 1
