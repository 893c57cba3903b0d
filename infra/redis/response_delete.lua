-- Removes a response and how its job ended. KEYS: the response, the job's ticket, the list it stands in. ARGV[1]: the job's id.
-- Gives the references of what lies elsewhere (missing: '').
local kept = redis.call('HGET', KEYS[1], 'ref')
local ended = redis.call('HGET', KEYS[2], 'ref')
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[1])
return {kept or '', ended or ''}
