-- What a call of a deployment took in truth: its tokens were only expected when it was charged (quota.lua).
-- KEYS[1]: buckets and lanes. KEYS[2]: what is known of the team.
-- ARGV: calls a minute or 0, tokens a minute, batch (1 or 0), weight, tokens charged, tokens taken.
local MINUTE = 60000
local rpm, one, batch, weight = tonumber(ARGV[1]), MINUTE / ARGV[2], ARGV[3] == '1', tonumber(ARGV[4])
local charged, taken = ARGV[5] * one, ARGV[6] * one
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local known = redis.call('HMGET', KEYS[1], 'tokens', 'tokens:b')
local full = math.max(tonumber(known[1] or 0), now) + taken - charged
redis.call('HSET', KEYS[1], 'tokens', string.format('%.3f', full))
if batch and known[2] then
  local old = tonumber(known[2])
  local full_tenth = old + 10 * (taken - charged)
  if taken > charged then
    -- The tenth gets empty, and has no debt, as when a call is charged.
    full_tenth = math.max(old, math.min(full_tenth, now + 10 * math.max(one, MINUTE / 10)))
  end
  redis.call('HSET', KEYS[1], 'tokens:b', string.format('%.3f', full_tenth))
end
redis.call('PEXPIRE', KEYS[1], math.max(math.ceil(full - now) + 1000, 2 * MINUTE))
local tag, rest = string.match(redis.call('GET', KEYS[2]) or '', '^(%S+)( .*)$')
if tag then
  local call = rpm > 0 and MINUTE / rpm or 0
  local more = math.max(call, taken) - math.max(call, charged)
  local ttl = redis.call('PTTL', KEYS[2])
  redis.call('SET', KEYS[2], string.format('%.15g', tag + more / weight) .. rest, 'PX', math.max(ttl, 1))
end
return 1
