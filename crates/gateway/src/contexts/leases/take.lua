-- Takes or renews a lease: its key, its owner, how long it lasts in milliseconds. 1 if it is the owner's now.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
