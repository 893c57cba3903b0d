-- A page of a list of jobs, the youngest first, from below one on that need not stand in it.
-- KEYS[1]: the list, scored by acceptance. ARGV: when that one was accepted in unix ms, or '+inf'; its id, or ''; how many.
-- Gives ids; the ticket of some may be gone.
local found, start, most = {}, 0, tonumber(ARGV[3])
while #found < most do
  local ids = redis.call('ZREVRANGEBYSCORE', KEYS[1], ARGV[1], '-inf', 'LIMIT', start, 100)
  if #ids == 0 then
    break
  end
  for _, id in ipairs(ids) do
    if #found < most and (ARGV[2] == '' or id < ARGV[2]) then
      found[#found + 1] = id
    end
  end
  start = start + #ids
end
return found
