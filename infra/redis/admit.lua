-- Admission in one round trip: a request that was made before is found; every limit of the caller is checked and charged, or none:
-- rates, places, money; and what may be asked for later is noted. With holds.lua before it.
-- Rates are GCRAs (generic cell rate algorithm): one timestamp a limit, no reset job, no window edge to double at. Who may wait
-- (batch) is given the time at which its turn comes, and who comes after it the time after that.
-- KEYS: rates; rooms; counters; then, if there is a claim: its key; if there is a ticket: its key; if it is listed: the list.
-- ARGV: number of rates, of rooms, of counters; longest wait in ms, job id, tokens, nano-dollars, ms of the hold's lease,
--   what of the counters (hold | look: only whether something is left);
--   claim or '', its life in ms, attaches (1 or 0), ticket or '', its life in ms, listed (1 or 0), most listed, ms of acceptance;
--   of each rate: limit, period in ms, t (counts tokens) or r (requests); of each room: limit;
--   of each counter: limit in nano-dollars or '', limit in tokens or '', unix ms at which it may be forgotten (0: never).
-- Gives {1 (or 3: the money was held for this job before), ms to wait, of each rate: remaining, ms until full, …}
--   | {0, 'rate', its number, ms to wait, remaining, ms until full} | {0, 'room', its number}
--   | {0, 'usd' | 'tokens', number of the counter, spent, held} | {0, 'closed'}: the counters are not to be trusted
--   | {2, claim, sent (1 or 0), number of those who attached so far}.
local rates, rooms, counters = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local longest, job, tokens, nano = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local lease, holds = tonumber(ARGV[8]), ARGV[9] == 'hold'
local claim, claim_ms, attaches, ticket, ticket_ms = ARGV[10], ARGV[11], ARGV[12], ARGV[13], ARGV[14]
local listed, most, accepted = ARGV[15], tonumber(ARGV[16]), ARGV[17]
local of_rates, of_rooms = 17, 17 + 3 * rates
local of_counters = of_rooms + rooms
local following = rates + rooms + counters + 1

local claim_key = claim ~= '' and KEYS[following]
if claim_key then
  following = following + 1
  local held = redis.call('HMGET', claim_key, 'claim', 'sent')
  if held[1] and attaches == '1' then
    return {2, held[1], tonumber(held[2] or 0), redis.call('HINCRBY', claim_key, 'attached', 1)}
  end
end

local now = milliseconds()
local arrivals, said, wait = {}, {1, 0}, 0
for i = 1, rates do
  local limit, period, unit = tonumber(ARGV[of_rates + 3 * i - 2]), tonumber(ARGV[of_rates + 3 * i - 1]), ARGV[of_rates + 3 * i]
  local cost = unit == 't' and tokens or 1
  local interval = period / limit
  local before = math.max(tonumber(redis.call('GET', KEYS[i]) or 0), now)
  local arrival = before + cost * interval
  local own = arrival - period - now
  if own > 1e-6 then
    if own > longest then
      local left = math.max(0, math.floor((now + period - before) / interval + 1e-6))
      return {0, 'rate', i, math.ceil(own), left, math.ceil(before - now)}
    end
    wait = math.max(wait, own)
  end
  said[2 * i + 1] = math.max(0, math.floor((now + period - arrival) / interval + 1e-6))
  said[2 * i + 2] = math.ceil(arrival - now)
  arrivals[i] = arrival
end

if counters > 0 and not redis.call('GET', 'ledger:epoch') then
  return {0, 'closed'}
end

-- What is delivered again holds already what it needs.
local holds_already = holds and counters > 0 and redis.call('HEXISTS', 'hold:' .. job, 'b') == 1

local function refusal()
  for i = 1, rooms do
    local room = KEYS[rates + i]
    redis.call('ZREMRANGEBYSCORE', room, '-inf', text(now))
    if redis.call('ZCARD', room) >= tonumber(ARGV[of_rooms + i]) and not redis.call('ZSCORE', room, job) then
      return {0, 'room', i}
    end
  end
  for i = 1, holds_already and 0 or counters do
    local counted = redis.call('HMGET', KEYS[rates + rooms + i], 'u', 'hu', 't', 'ht')
    local function too_much(limit, amount, spent, held)
      if limit == '' then
        return false
      end
      local in_use = tonumber(spent or 0) + tonumber(held or 0)
      if holds then
        return in_use + amount > tonumber(limit)
      end
      return in_use >= tonumber(limit)
    end
    local at = of_counters + 3 * i
    if too_much(ARGV[at - 2], nano, counted[1], counted[2]) then
      return {0, 'usd', i, counted[1] or '0', counted[2] or '0'}
    end
    if too_much(ARGV[at - 1], tokens, counted[3], counted[4]) then
      return {0, 'tokens', i, counted[3] or '0', counted[4] or '0'}
    end
  end
  return nil
end

local refused = refusal()
if refused and sweep(now, 100) > 0 then
  refused = refusal()
end
if refused then
  return refused
end

local charged = {}
for i = 1, rates do
  redis.call('SET', KEYS[i], string.format('%.3f', arrivals[i]), 'PX', math.ceil(arrivals[i] - now) + 1000)
  if ARGV[of_rates + 3 * i] == 't' then
    charged[#charged + 1] = KEYS[i]
    charged[#charged + 1] = string.format('%.17g', tonumber(ARGV[of_rates + 3 * i - 1]) / tonumber(ARGV[of_rates + 3 * i - 2]))
  end
end
local held = {}
if #charged > 0 then
  held[#held + 1], held[#held + 2] = 'r', table.concat(charged, '\n')
  held[#held + 1], held[#held + 2] = 'rt', ARGV[6]
end
if rooms > 0 then
  local taken = {}
  for i = 1, rooms do
    taken[i] = KEYS[rates + i]
    redis.call('ZADD', taken[i], text(now + lease), job)
    redis.call('PEXPIRE', taken[i], text(lease + 60000))
  end
  held[#held + 1], held[#held + 2] = 'c', table.concat(taken, '\n')
end
if counters > 0 and holds and not holds_already then
  local at = {}
  for i = 1, counters do
    at[i] = KEYS[rates + rooms + i]
    redis.call('HINCRBY', at[i], 'hu', ARGV[7])
    redis.call('HINCRBY', at[i], 'ht', ARGV[6])
    local forgotten = ARGV[of_counters + 3 * i]
    if forgotten ~= '0' then
      redis.call('PEXPIREAT', at[i], forgotten)
    end
  end
  held[#held + 1], held[#held + 2] = 'b', table.concat(at, '\n')
  held[#held + 1], held[#held + 2] = 'u', ARGV[7]
  held[#held + 1], held[#held + 2] = 't', ARGV[6]
end
if #held > 0 then
  local hold = 'hold:' .. job
  redis.call('HSET', hold, unpack(held))
  redis.call('PEXPIRE', hold, text(lease + 86400000))
  redis.call('ZADD', 'holds', text(now + lease), job)
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
said[1], said[2] = holds_already and 3 or 1, math.ceil(wait)
return said
