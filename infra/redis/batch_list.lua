-- A page of a team's batches, the youngest first. KEYS[1]: the list. ARGV: last batch of the page before or '', how many.
-- Gives view and unix ms of the wish to cancel it, in turn; batches of which nothing is kept are removed and left out.
local start = 0
if ARGV[1] ~= '' then
  local rank = redis.call('ZREVRANK', KEYS[1], ARGV[1])
  if not rank then
    return {}
  end
  start = rank + 1
end
local found = {}
while #found < 2 * tonumber(ARGV[2]) do
  local ids = redis.call('ZREVRANGE', KEYS[1], start, start + 99)
  if #ids == 0 then
    break
  end
  for _, id in ipairs(ids) do
    if #found < 2 * tonumber(ARGV[2]) then
      local held = redis.call('HMGET', 'batch:' .. id, 'view', 'cancel')
      if held[1] then
        found[#found + 1] = held[1]
        found[#found + 1] = tonumber(held[2] or 0)
        start = start + 1
      else
        redis.call('ZREM', KEYS[1], id)
      end
    end
  end
end
return found
