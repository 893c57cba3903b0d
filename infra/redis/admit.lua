-- Admission in one round trip: a request that was made before is found, every limit of the caller is checked and charged, or none,
-- and what may be asked for later is noted.
-- GCRA (generic cell rate algorithm): one timestamp a limit, no reset job, no window edge to double at. Who may wait (batch) is
-- given the time at which its turn comes, and who comes after it the time after that.
-- KEYS: one a limit; then, if there is a claim: its key; then, if there is a ticket: its key; then, if it is listed: the list.
-- ARGV: number of limits, requests per minute of each, longest wait in ms, job id,
--   claim or '', its life in ms, attaches (1 or 0), ticket or '', its life in ms, listed (1 or 0), most listed, unix ms of acceptance.
-- Gives {1 | 0, index of the limit that refused or of the tightest (0: none), ms to wait, remaining, ms until full},
--   or {2, claim, sent (1 or 0), number of those who attached so far}.
local n = tonumber(ARGV[1])
local longest, job = tonumber(ARGV[n + 2]), ARGV[n + 3]
local claim, claim_ms, attaches, ticket, ticket_ms = ARGV[n + 4], ARGV[n + 5], ARGV[n + 6], ARGV[n + 7], ARGV[n + 8]
local listed, most, accepted = ARGV[n + 9], tonumber(ARGV[n + 10]), ARGV[n + 11]
local following = n + 1
local claim_key = claim ~= '' and KEYS[following]
if claim_key then
  following = following + 1
  local held = redis.call('HMGET', claim_key, 'claim', 'sent')
  if held[1] and attaches == '1' then
    return {2, held[1], tonumber(held[2] or 0), redis.call('HINCRBY', claim_key, 'attached', 1)}
  end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local arrivals = {}
local tightest, least, reset, wait = n > 0 and 1 or 0, math.huge, 0, 0
for i = 1, n do
  local interval = 60000 / tonumber(ARGV[i + 1])
  local arrival = math.max(tonumber(redis.call('GET', KEYS[i]) or 0), now) + interval
  local remaining = math.floor((now + 60000 - arrival) / interval + 1e-6)
  if remaining < 0 then
    local own = arrival - 60000 - now
    if own > longest then
      return {0, i, math.ceil(own), 0, math.ceil(arrival - interval - now)}
    end
    wait, remaining = math.max(wait, own), 0
  end
  if remaining < least then
    tightest, least, reset = i, remaining, arrival - now
  end
  arrivals[i] = arrival
end
for i = 1, n do
  redis.call('SET', KEYS[i], string.format('%.3f', arrivals[i]), 'PX', math.ceil(arrivals[i] - now) + 1000)
end
if claim_key then
  redis.call('DEL', claim_key)
  redis.call('HSET', claim_key, 'claim', claim)
  redis.call('PEXPIRE', claim_key, claim_ms)
end
if ticket ~= '' then
  redis.call('HSET', KEYS[following], 'ticket', ticket)
  redis.call('PEXPIRE', KEYS[following], ticket_ms)
  if listed == '1' then
    local list = KEYS[following + 1]
    redis.call('ZADD', list, accepted, job)
    redis.call('ZREMRANGEBYRANK', list, 0, -most - 1)
    redis.call('PEXPIRE', list, ticket_ms)
  end
end
return {1, tightest, math.ceil(wait), n > 0 and least or 0, math.ceil(reset)}
