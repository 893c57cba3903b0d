-- Something happens once. KEYS[1]: its note. ARGV: begin | done | forget, life of the note in ms.
-- begin gives '' if it begins now, else what the note says: begun or done.
if ARGV[1] == 'forget' then
  redis.call('DEL', KEYS[1])
  return ''
end
if ARGV[1] == 'done' then
  redis.call('SET', KEYS[1], 'done', 'PX', ARGV[2])
  return ''
end
local former = redis.call('GET', KEYS[1])
if former then
  return former
end
redis.call('SET', KEYS[1], 'begun', 'PX', ARGV[2])
return ''
