-- A request that may be repeated. KEYS[1]: its claim. ARGV: what (sent | is_sent | attached | forget).
-- sent: it is known to be on its way. is_sent: gives 1 if it is. attached: gives how many have attached so far.
-- forget: who repeats it begins anew.
if ARGV[1] == 'forget' then
  return redis.call('DEL', KEYS[1])
end
if ARGV[1] == 'sent' and redis.call('EXISTS', KEYS[1]) == 1 then
  return redis.call('HSET', KEYS[1], 'sent', 1)
end
if ARGV[1] == 'is_sent' then
  return tonumber(redis.call('HGET', KEYS[1], 'sent') or 0)
end
return tonumber(redis.call('HGET', KEYS[1], 'attached') or 0)
