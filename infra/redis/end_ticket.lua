-- Notes how a job ended; the first end stays. KEYS[1]: ticket. ARGV: end, reference of an end that lies elsewhere or '', status, life in ms.
-- Gives 1, or 0 if an end was noted before, or there is no ticket any more.
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('HSETNX', KEYS[1], 'status', ARGV[3]) == 0 then
  return 0
end
redis.call('HSET', KEYS[1], 'end', ARGV[1], 'ref', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
