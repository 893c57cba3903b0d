-- One call of a deployment, out of what its provider allows a minute, shared by all routers and by the lanes.
-- Two GCRAs, as admission has them: of all calls, and of the tenth that batch is guaranteed. Batch may use what is left above the
-- quarter that is kept for interactive, or else its tenth; interactive may use everything but what batch has left of that tenth.
-- KEYS[1]: all calls. KEYS[2]: batch's tenth. ARGV: calls a minute, batch (1 or 0).
-- Gives {ms to wait (0: charged), ms until nothing is in use}.
local rpm, batch = tonumber(ARGV[1]), ARGV[2] == '1'
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local interval = 60000 / rpm
-- As with places: at least one for each lane, where there are two.
local reserve = rpm > 1 and math.max(1, rpm / 4) or 0
local tenth = rpm > 1 and math.max(1, rpm / 10) or 0
local arrival = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local arrival_of_tenth = math.max(tonumber(redis.call('GET', KEYS[2]) or 0), now)
local left = (now + 60000 - arrival) / interval
local left_of_tenth = tenth - (arrival_of_tenth - now) / (10 * interval)
local wait
if batch then
  local shared, own = 1 + reserve - left, math.max(1 - left, (1 - left_of_tenth) * 10)
  wait = tenth > 0 and math.min(shared, own) or shared
else
  -- While batch's tenth fills, a tenth of what comes is not for interactive.
  wait = (1 + left_of_tenth - left) / (left_of_tenth < tenth and 0.9 or 1)
end
-- What floating point makes of a wait of nothing.
if wait > 1e-6 then
  return {math.max(1, math.ceil(wait * interval)), math.ceil(arrival - now)}
end
arrival = arrival + interval
redis.call('SET', KEYS[1], string.format('%.3f', arrival), 'PX', math.ceil(arrival - now) + 1000)
if batch then
  arrival_of_tenth = math.min(arrival_of_tenth + 10 * interval, now + tenth * 10 * interval)
  redis.call('SET', KEYS[2], string.format('%.3f', arrival_of_tenth), 'PX', math.ceil(arrival_of_tenth - now) + 1000)
end
return {0, math.ceil(arrival - now)}
