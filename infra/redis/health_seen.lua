-- What each router has seen of its deployments of late. KEYS[1]: hash of routers. ARGV: how long it counts, in ms. Gives the texts.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local seen = {}
for _, text in ipairs(redis.call('HVALS', KEYS[1])) do
  local at, what = string.match(text, '^(%d+) (.*)$')
  if tonumber(at) + ARGV[1] > now then
    seen[#seen + 1] = what
  end
end
return seen
