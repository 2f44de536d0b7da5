-- Health of a ModelSnapshot: progressing until its bytes are in the store.
local ready = nil
for _, condition in ipairs((obj.status or {}).conditions or {}) do
  if condition.type == "Ready" then
    ready = condition
  end
end

if ready == nil then
  return {status = "Progressing", message = "The operator has not looked at it yet."}
end
if (ready.observedGeneration or 0) < (obj.metadata.generation or 0) then
  return {status = "Progressing", message = "The operator has not seen the last change yet."}
end
if ready.status == "True" then
  return {status = "Healthy", message = ready.message}
end
if ready.reason == "Taking" or ready.status == "Unknown" then
  return {status = "Progressing", message = ready.message}
end
return {status = "Degraded", message = ready.message}
