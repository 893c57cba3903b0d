-- What is kept of a response. KEYS[1]: the response. Gives {kept, reference} (missing: '').
local found = redis.call('HMGET', KEYS[1], 'kept', 'ref')
return {found[1] or '', found[2] or ''}
