-- Some of what is held under a prefix, for who searches all of it. ARGV: cursor, prefix, about how many keys.
-- Gives the next cursor ('0': that was all), then of each: key, reference of what lies elsewhere, whether it has ended (1 or 0), text.
local found = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2] .. '*', 'COUNT', ARGV[3])
local result = {found[1]}
for _, key in ipairs(found[2]) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'string' then
    result[#result + 1] = {key, '', 1, redis.call('GET', key) or ''}
  elseif kind == 'hash' then
    local held = redis.call('HMGET', key, 'ref', 'status', 'ticket')
    result[#result + 1] = {key, held[1] or '', held[2] and 1 or 0, held[3] or ''}
  end
end
return result
