-- Keeps content of a context, unless a later version is there: servers that commit one after the other may be heard in
-- another order.
-- KEYS: the context. ARGV: version, content, how long it stays, milliseconds.
local held = redis.call('HGET', KEYS[1], 'version')
if held and tonumber(held) > tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'content', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
