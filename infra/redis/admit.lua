-- Admission: every limit of the caller is checked, and all of them are charged together, or none.
-- GCRA (generic cell rate algorithm): one timestamp a limit, no reset job, no window edge to double at.
-- KEYS: one a limit. ARGV: requests per minute, one a key.
-- Gives {allowed, index of the limit that refused or of the tightest, retry in ms, remaining, ms until full}.
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local arrivals = {}
local tightest, least, reset = 1, math.huge, 0
for i, key in ipairs(KEYS) do
  local limit = tonumber(ARGV[i])
  local interval = 60000 / limit
  local arrival = math.max(tonumber(redis.call('GET', key) or 0), now) + interval
  local remaining = math.floor((now + 60000 - arrival) / interval + 1e-6)
  if remaining < 0 then
    return {0, i, math.ceil(arrival - 60000 - now), 0, math.ceil(arrival - interval - now)}
  end
  if remaining < least then
    tightest, least, reset = i, remaining, arrival - now
  end
  arrivals[i] = arrival
end
for i, key in ipairs(KEYS) do
  redis.call('SET', key, string.format('%.3f', arrivals[i]), 'PX', math.ceil(arrivals[i] - now) + 1000)
end
return {1, tightest, 0, least, math.ceil(reset)}
