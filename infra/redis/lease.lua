-- The router's right to call a provider for a job, and the write-ahead of that call.
-- KEYS[1]: job record. KEYS[2]: the job's kept answer.
-- ARGV: owner (slot), incarnation (this life of it), lease in ms, life of the record in ms, most attempts.
-- Gives {'granted', n} | {'done'} | {'abandoned'} | {'answered', answer} | {'leased', ms left} | {'interrupted', n} | {'exhausted', n}.
local record = redis.call('HMGET', KEYS[1], 'state', 'owner', 'life', 'until', 'n', 'streamed')
local state, owner, life, ends, n, streamed = record[1], record[2], record[3], record[4], tonumber(record[5] or 0), record[6]
if state == 'done' or state == 'abandoned' then
  return {state}
end
if state == 'answered' then
  return {'answered', redis.call('GET', KEYS[2]) or ''}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- A slot has one process at a time (Kafka fences the other), so another life of the same slot is dead.
local same_slot_reborn = owner == ARGV[1] and life ~= ARGV[2]
if state == 'leased' and tonumber(ends) > now and not same_slot_reborn then
  return {'leased', tonumber(ends) - now}
end
if streamed then
  return {'interrupted', n}
end
if n >= tonumber(ARGV[5]) then
  return {'exhausted', n}
end
n = n + 1
redis.call('HSET', KEYS[1], 'state', 'leased', 'owner', ARGV[1], 'life', ARGV[2], 'until', now + ARGV[3], 'n', n)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {'granted', n}
