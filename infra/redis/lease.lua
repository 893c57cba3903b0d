-- The router's right to call a provider for a job, and the write-ahead of that call.
-- KEYS[1]: job record. KEYS[2]: the job's kept answer.
-- ARGV: owner (slot), incarnation (this life of it), lease in ms, life of the record in ms, most attempts,
--   ask (names this question: asked again when the answer was lost, it is answered as before),
--   held (the last attempt that this life has made, or 0), note (what will be called),
--   made (attempts that this copy of the job tells of: if a copy that was put off since then knows of more, this one is stale),
--   goes on (1: this life's own stream may have begun, and another call goes on where it breaks off, or races with it).
-- Gives {'done'} | {'stale'} | {'ending'} | {'leased', ms left} | {'answered', answer}
--   | {'granted' | 'interrupted' | 'exhausted' | 'abandoned', n, notes of the attempts made before…}.
-- Whoever is told anything but the first four holds the lease, and has to end the job.
local record = redis.call('HMGET', KEYS[1], 'state', 'owner', 'life', 'until', 'n', 'streamed', 'ask', 'said', 'made')
local state, owner, life, ends = record[1], record[2], record[3], tonumber(record[4] or 0)
local n, streamed, ask, said = tonumber(record[5] or 0), record[6], record[7], record[8]
local held = tonumber(ARGV[7])
if state == 'done' or state == 'ending' then
  return {state}
end
if tonumber(record[9] or 0) > tonumber(ARGV[9]) then
  return {'stale'}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local mine = owner == ARGV[1] and life == ARGV[2]
-- A slot has one process at a time (Kafka fences the other), so another life of the same slot is dead.
local same_slot_reborn = owner == ARGV[1] and life ~= ARGV[2]
local repeated = mine and ask == ARGV[6] and ask ~= ''
-- More calls than are noted here were made while Redis was away, or before it lost its notes.
local again = mine and held > 0 and held >= n
n = math.max(n, held)
if ends > now and not (same_slot_reborn or repeated or again) then
  return {'leased', ends - now}
end
if state == 'answered' or state == 'abandoned' then
  said = state
else
  state = 'leased'
  if streamed and not ((again or repeated) and ARGV[10] == '1') then
    said = 'interrupted'
  elseif not repeated then
    said = n < tonumber(ARGV[5]) and 'granted' or 'exhausted'
    if said == 'granted' then
      n = n + 1
      redis.call('HSET', KEYS[1], 'call:' .. n, ARGV[8])
    end
  end
end
redis.call('HSET', KEYS[1], 'state', state, 'owner', ARGV[1], 'life', ARGV[2], 'until', now + ARGV[3],
  'n', n, 'ask', ARGV[6], 'said', said)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
if said == 'answered' then
  return {said, redis.call('GET', KEYS[2]) or ''}
end
local reply = {said, n}
for i = 1, said == 'granted' and n - 1 or n do
  reply[#reply + 1] = redis.call('HGET', KEYS[1], 'call:' .. i) or ''
end
return reply
