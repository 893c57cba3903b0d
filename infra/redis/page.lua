-- A page of a team's jobs or batches, the youngest first. KEYS[1]: the list.
-- ARGV: last of the page before or '', how many, prefix of the keys under which something is kept of each.
-- Gives ids; those of which nothing is kept any more are removed and left out.
local start = 0
if ARGV[1] ~= '' then
  local rank = redis.call('ZREVRANK', KEYS[1], ARGV[1])
  if not rank then
    return {}
  end
  start = rank + 1
end
local found = {}
while #found < tonumber(ARGV[2]) do
  local ids = redis.call('ZREVRANGE', KEYS[1], start, start + 99)
  if #ids == 0 then
    break
  end
  for _, id in ipairs(ids) do
    if #found < tonumber(ARGV[2]) then
      if redis.call('EXISTS', ARGV[3] .. id) == 1 then
        found[#found + 1] = id
        start = start + 1
      else
        redis.call('ZREM', KEYS[1], id)
      end
    end
  end
end
return found
