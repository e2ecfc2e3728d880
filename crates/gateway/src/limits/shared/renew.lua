-- Says again that requests run.
-- KEYS: for each, the running requests of a subject. ARGV: how long it lasts, milliseconds; for each, the request.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for index, key in ipairs(KEYS) do
  redis.call('ZADD', key, string.format('%.0f', now + ARGV[1]), ARGV[index + 1])
  redis.call('PEXPIRE', key, ARGV[1])
end
return #KEYS
