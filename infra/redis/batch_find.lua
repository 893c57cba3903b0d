-- What is kept of a batch; notes first that it is to be cancelled, if that is asked and it isn't over.
-- KEYS[1]: the batch. ARGV: its team, unix ms of the wish to cancel it or 0. Gives {view, cancel in unix ms}, or nothing.
local held = redis.call('HMGET', KEYS[1], 'view', 'team', 'over', 'cancel')
if not held[1] or held[2] ~= ARGV[1] then
  return false
end
if tonumber(ARGV[2]) > 0 and not held[3] and redis.call('HSETNX', KEYS[1], 'cancel', ARGV[2]) == 1 then
  held[4] = ARGV[2]
end
return {held[1], tonumber(held[4] or 0)}
