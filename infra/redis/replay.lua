-- Notes what a dead letter becomes, so that it isn't replayed twice by accident. KEYS[1]: the note.
-- ARGV: begin | forget, what it becomes, life of the note in ms, even if it was replayed before (1 or 0).
-- begin gives '' if it may be replayed, else what it became before; forget gives ''.
if ARGV[1] == 'forget' then
  redis.call('DEL', KEYS[1])
  return ''
end
local former = redis.call('GET', KEYS[1])
if former and ARGV[4] ~= '1' then
  return former
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return ''
