-- Keeps what belongs to a response; what was kept before stays. KEYS[1]: the response.
-- ARGV: what is kept or '', reference of what lies elsewhere or '', life in ms. Gives 1, or 0 if it was kept before.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('HSET', KEYS[1], 'kept', ARGV[1], 'ref', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
