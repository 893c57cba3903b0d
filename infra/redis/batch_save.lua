-- Keeps what is to be seen of a batch, and lists it. KEYS: the batch, its team's list.
-- ARGV: view, team, batch id, unix ms of creation, life in ms, most listed, what (new | on | over).
-- new: only if nothing is kept yet. A batch that is over stays as it is. Gives unix ms at which its cancelling was asked for, or 0.
local held = redis.call('HMGET', KEYS[1], 'view', 'over', 'cancel')
local what = ARGV[7]
if not (what == 'new' and held[1]) and not held[2] then
  redis.call('HSET', KEYS[1], 'view', ARGV[1], 'team', ARGV[2])
  if what == 'over' then
    redis.call('HSET', KEYS[1], 'over', '1')
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -tonumber(ARGV[6]) - 1)
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
end
return tonumber(held[3] or 0)
