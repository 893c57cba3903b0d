-- A copy of a job that was about to end goes on after all: what was found then is not found again. KEYS[1]: job record.
-- ARGV: the copy (topic/partition@offset), forget (1 or 0).
-- Gives 1 if this copy was granted the end, which is forgotten if so asked; else 0.
local record = redis.call('HMGET', KEYS[1], 'state', 'copy')
if record[1] ~= 'ending' or record[2] ~= ARGV[1] then
  return 0
end
if ARGV[2] == '1' then
  redis.call('HDEL', KEYS[1], 'state', 'copy')
end
return 1
