-- Moves a job's record on. KEYS[1]: job record. KEYS[2]: the job's kept answer.
-- ARGV: what (streamed | answered | done | abandoned | seen), life of the record in ms, answer (of seen: what names the question) or '',
--   keep the answer (1 or 0).
-- Gives 1, or 0 if the job had ended already; for 'seen' how often it was begun.
local what, life = ARGV[1], ARGV[2]
if what == 'seen' then
  local state = redis.call('HGET', KEYS[1], 'state')
  if state == 'done' then
    return 0
  end
  -- Asked again because the answer was lost, it is the same delivery.
  if ARGV[3] ~= '' and redis.call('HGET', KEYS[1], 'seen_ask') == ARGV[3] then
    return tonumber(redis.call('HGET', KEYS[1], 'seen'))
  end
  local seen = redis.call('HINCRBY', KEYS[1], 'seen', 1)
  redis.call('HSET', KEYS[1], 'seen_ask', ARGV[3])
  redis.call('PEXPIRE', KEYS[1], life)
  return seen
end
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'done' or (state == 'answered' and what ~= 'done') or (state == 'ending' and what == 'abandoned') then
  return 0
end
if what == 'streamed' then
  redis.call('HSET', KEYS[1], 'streamed', 1)
  return 1
end
if what == 'done' then
  if ARGV[4] ~= '1' or redis.call('HEXISTS', KEYS[1], 'filled') == 1 then
    redis.call('DEL', KEYS[2])
  end
  -- Nothing else is asked of it any more.
  redis.call('DEL', KEYS[1])
end
redis.call('HSET', KEYS[1], 'state', what)
redis.call('PEXPIRE', KEYS[1], life)
if what == 'answered' then
  redis.call('SET', KEYS[2], ARGV[3], 'PX', life)
end
return 1
