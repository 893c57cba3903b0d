-- The job waits in another record now, which tells of `made` attempts: the lease is given back, and copies that know of fewer
-- attempts are out of date. KEYS[1]: job record. ARGV: owner, incarnation, made.
local record = redis.call('HMGET', KEYS[1], 'state', 'owner', 'life')
if record[1] ~= 'done' and record[2] == ARGV[1] and record[3] == ARGV[2] then
  redis.call('HSET', KEYS[1], 'until', 0, 'made', ARGV[3])
end
return 1
