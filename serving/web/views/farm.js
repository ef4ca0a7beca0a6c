// The views of the farm: all films, and what renders them. The parts are in farm/.

export { FarmView } from "./farm/farm.js";
export { FilmsView } from "./farm/films.js";
