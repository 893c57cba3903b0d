-- Prolongs the leases that this life of the owner still holds, or gives them back (lease of 0 ms).
-- KEYS: job records. ARGV: owner, incarnation, lease in ms.
local time = redis.call('TIME')
local ends = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3]
local renewed = 0
for _, key in ipairs(KEYS) do
  local record = redis.call('HMGET', key, 'state', 'owner', 'life')
  if record[1] ~= 'done' and record[2] == ARGV[1] and record[3] == ARGV[2] then
    redis.call('HSET', key, 'until', ends)
    renewed = renewed + 1
  end
end
return renewed
