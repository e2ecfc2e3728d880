-- A sign of life of one server; answers how many have given one lately.
-- KEYS: their times. ARGV: the server; after how long one counts as gone, milliseconds, or 0: it is going.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lasts = tonumber(ARGV[2])
if lasts == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], now, ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - lasts)
  redis.call('PEXPIRE', KEYS[1], 60000)
end
return redis.call('ZCARD', KEYS[1])
