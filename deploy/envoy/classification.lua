-- Take the parameter `classification` out of requests while they stream through. In a protobuf message, the name of a
-- parameter is its length (14) and its bytes, without a gap. Wherever they appear, the last letter becomes a capital:
-- Triton ignores parameters of outputs that it does not know, and no byte is added, removed or held back.
-- The name may be divided over several pieces, and its length may be written with more bytes than needed.

local NAME = "classification"
local REPLACEMENT = "N"
local LONGEST_LENGTH = 10 -- bytes of a varint
local KEPT = #NAME + LONGEST_LENGTH - 1

-- Is there a varint of 14 just before this place of the text?
local function follows_its_length(text, place)
  local at = place - 1
  if at >= 1 and text:byte(at) == #NAME then return true end
  if at < 1 or text:byte(at) ~= 0 then return false end
  repeat at = at - 1 until at < 1 or text:byte(at) ~= 0x80
  return at >= 1 and text:byte(at) == 0x80 + #NAME
end

-- Return the piece without the parameter; `before` is the end of what has been sent on.
local function cleaned(before, piece)
  local text = before .. piece
  local parts, copied = nil, #before
  local place = text:find(NAME, 1, true)
  while place do
    local last = place + #NAME - 1
    if last > #before and follows_its_length(text, place) then
      parts = parts or {}
      parts[#parts + 1] = text:sub(copied + 1, last - 1)
      parts[#parts + 1] = REPLACEMENT
      copied = last
    end
    place = text:find(NAME, place + 1, true)
  end
  if not parts then return nil, text:sub(-KEPT) end
  parts[#parts + 1] = text:sub(copied + 1)
  return table.concat(parts), text:sub(-KEPT)
end

function envoy_on_request(handle)
  local before = ""
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    if size > 0 then
      local changed
      changed, before = cleaned(before, chunk:getBytes(0, size))
      if changed then
        chunk:setBytes(changed)
      end
    end
  end
end
