-- Settles jobs that have ended: what they cost is spent, what was held for them is given back. With holds.lua before it.
-- Done once for each record of the completions: of each partition Redis knows the last that was settled, so the same call made
-- again changes nothing, and a member that lost the partition can't settle what its successor has.
-- KEYS: counters. ARGV: number of partitions; of each: its number, the last record settled before (-1: none), the last of these;
--   number of jobs; of each: its id, tokens used or '' (not known); of each counter: nano-dollars, tokens, unix ms at which it may
--   be forgotten (0: never); number of keys that were used; of each: id, unix ms.
-- Gives {1, of each counter: nano-dollars and tokens spent so far, as text, …} | {2}: it was done before | {0}: the ledger is closed
--   | {3, of each partition: the last record that is settled}: this is not what follows.
if not redis.call('GET', 'ledger:epoch') then
  return {0}
end
local now = milliseconds()
local n, at = tonumber(ARGV[1]), 1
local fresh, done, known = true, true, {3}
for i = 1, n do
  local last = redis.call('HGET', 'ledger:settled', ARGV[at + 1]) or '-1'
  known[i + 1] = tonumber(last)
  fresh = fresh and last == ARGV[at + 2]
  done = done and last == ARGV[at + 3]
  at = at + 3
end
if n > 0 and done then
  return {2}
end
if not fresh then
  return known
end
for i = 1, n do
  redis.call('HSET', 'ledger:settled', ARGV[3 * i - 1], ARGV[3 * i + 1])
end
local jobs = tonumber(ARGV[at + 1])
at = at + 2
for _ = 1, jobs do
  release(ARGV[at], tonumber(ARGV[at + 1]), now)
  at = at + 2
end
local spent = {1}
for i = 1, #KEYS do
  redis.call('HINCRBY', KEYS[i], 'u', ARGV[at])
  redis.call('HINCRBY', KEYS[i], 't', ARGV[at + 1])
  if ARGV[at + 2] ~= '0' then
    redis.call('PEXPIREAT', KEYS[i], ARGV[at + 2])
  end
  local counted = redis.call('HMGET', KEYS[i], 'u', 't')
  -- A period that is over so long that nobody asks for it any more is forgotten by now.
  spent[2 * i], spent[2 * i + 1] = counted[1] or '0', counted[2] or '0'
  at = at + 3
end
for _ = 1, tonumber(ARGV[at]) do
  -- Partitions are settled apart: the latest stays.
  if tonumber(ARGV[at + 2]) > tonumber(redis.call('HGET', 'keys:last_used', ARGV[at + 1]) or 0) then
    redis.call('HSET', 'keys:last_used', ARGV[at + 1], ARGV[at + 2])
  end
  at = at + 2
end
return spent
