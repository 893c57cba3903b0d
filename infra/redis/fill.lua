-- Turns a job's kept answer into a cache entry without moving its bytes through a service.
-- The cache is bounded in bytes: the oldest entries go first.
-- KEYS: the job's kept answer, the cache entry, the order of entries, the bytes in all, the job's record.
-- ARGV: ttl in s, bytes allowed.
local size = redis.call('STRLEN', KEYS[1])
local state = redis.call('HGET', KEYS[5], 'state')
-- Until the job is marked as done, whoever comes after a death may have to publish the answer again.
local needed = state and state ~= 'done'
if size == 0 or (needed and redis.call('HEXISTS', KEYS[5], 'filled') == 1) then
  return 0
end
if needed then
  redis.call('HSET', KEYS[5], 'filled', 1)
end
if size > tonumber(ARGV[2]) then
  if not needed then
    redis.call('DEL', KEYS[1])
  end
  return 0
end
if needed then
  redis.call('COPY', KEYS[1], KEYS[2], 'REPLACE')
else
  redis.call('RENAME', KEYS[1], KEYS[2])
end
redis.call('EXPIRE', KEYS[2], ARGV[1])
redis.call('RPUSH', KEYS[3], size .. ' ' .. KEYS[2])
local total = redis.call('INCRBY', KEYS[4], size)
while total > tonumber(ARGV[2]) do
  local oldest = redis.call('LPOP', KEYS[3])
  if not oldest then
    redis.call('SET', KEYS[4], 0)
    break
  end
  local space = string.find(oldest, ' ', 1, true)
  local key = string.sub(oldest, space + 1)
  if key ~= KEYS[2] then
    redis.call('DEL', key)
  end
  total = redis.call('DECRBY', KEYS[4], string.sub(oldest, 1, space - 1))
end
return 1
