-- What waits where. KEYS[1]: the table. ARGV: field, value, … of the asker's own partitions. Gives all fields and values.
for i = 1, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
if #ARGV > 0 then
  redis.call('EXPIRE', KEYS[1], 60)
end
return redis.call('HGETALL', KEYS[1])
